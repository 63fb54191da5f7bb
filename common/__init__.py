"""What every package here may need: errors, files, command lines. Imports the standard library alone."""
