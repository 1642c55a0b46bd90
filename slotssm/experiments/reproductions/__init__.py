"""Reproductions: the paper's comparisons as cells that are trained, scored and recorded one by one."""
