"""Reports: runs, reproductions and data sets as pages to look at."""
