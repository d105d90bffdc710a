"""The walls of docs/architecture.md: who may import what, functions included."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
HEAVY = {"torch", "onnx", "cwic_lab", "matplotlib", "tqdm", "skimage", "scipy"}
# Third-party and own packages that each room of the runtime may import, besides the standard library and NumPy.
ROOMS = {
    "__init__.py": {"cwic"},
    "__main__.py": {"cwic"},
    "errors.py": set(),
    "container.py": {"cwic.errors"},
    "bundle.py": {"cwic.container", "cwic.errors"},
    "imagefile.py": {"cwic.errors", "cwic.metadata", "cwic.modes", "cwic.pixels", "PIL"},
    "modes.py": {"cwic.errors", "PIL"},
    "pixels.py": {"cwic.errors", "cwic.container"},
    "paper.py": {"cwic"},
    "flagship.py": {"cwic"},
    "flagship_encoder.py": {"cwic"},
    "encoding.py": {"cwic"},
    "areas.py": set(),
    "tiles.py": {"cwic.areas", "cwic.container", "cwic.errors", "cwic.symbols"},
    "webp.py": {"cwic.errors", "PIL"},
    "lossless.py": {"cwic.webp"},
    "fallback.py": {"cwic.lossless", "cwic.metrics", "cwic.search", "cwic.webp"},
    "preview.py": {"cwic.webp"},
    "alpha.py": {"cwic.errors", "cwic.lossless", "cwic.webp", "PIL"},
    "metadata.py": {"cwic.container", "cwic.errors"},
    "search.py": {"cwic.errors", "cwic.symbols"},
    "importance.py": {"cwic.errors", "cwic.symbols", "PIL"},
    "networks.py": {"cwic.areas", "cwic.bundle", "cwic.errors", "onnxruntime"},
    "effort.py": {"cwic"},
    "similarity.py": {"cwic.metrics"},
    "symbols.py": set(),
    "metrics.py": set(),
    "mapview.py": {"PIL"},
    "codec.py": {"cwic"},
    "cli.py": {"cwic"},
    "arguments.py": {"cwic"},
    "progressbar.py": set(),
    "pillow_plugin.py": {"cwic", "PIL"},
    "demo.py": {"cwic", "PIL"},
    "entropy": {"cwic.entropy", "cwic.errors", "cwic.symbols", "constriction"},
}


def imports(path):
    """Every module a file imports, at the top or inside functions; `from cwic import x` counts as cwic.x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{a.name}" for a in node.names) if node.module == "cwic" else (node.module,)


def allowed(module, names):
    top = module.split(".")[0]
    if top in sys.stdlib_module_names or top == "numpy":
        return True
    return any(module == name or module.startswith(name + ".") for name in names)


def test_every_room_of_the_runtime_keeps_to_its_walls():
    files = sorted((SOURCE / "cwic").rglob("*.py"))
    assert len(files) > 15
    for path in files:
        room = path.relative_to(SOURCE / "cwic").parts[0]
        assert room in ROOMS, f"{path} is in no known room"
        for module in imports(path):
            assert module.split(".")[0] not in HEAVY, f"{path} imports {module}"
            assert allowed(module, ROOMS[room]), f"{path} imports {module}"


def test_nothing_in_the_runtime_imports_the_plug_in():
    """So that nobody's Pillow knows one format more than was asked for."""
    for path in (SOURCE / "cwic").rglob("*.py"):
        assert "cwic.pillow_plugin" not in imports(path), f"{path} imports the plug-in"


def test_import_cwic_loads_nothing_heavy():
    unwanted = {"torch", "onnxruntime", "PIL", "cwic_lab", "cwic.pillow_plugin"}
    program = f"import sys, cwic; print({unwanted} & set(sys.modules))"
    environment = {"PYTHONPATH": str(SOURCE), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "set()"
