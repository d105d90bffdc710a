"""Evaluation against classical codecs: real files, the decoded uint8 picture, tables, plots and a page."""
