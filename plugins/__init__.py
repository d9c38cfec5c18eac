"""The built-in plugins: each file enters by the same hooks as a stranger's."""
