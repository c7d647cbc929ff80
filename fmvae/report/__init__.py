"""Reports on runs. They are made only from the files in run directories."""
