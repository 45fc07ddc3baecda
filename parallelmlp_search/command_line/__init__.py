"""What the commands share: exit codes and messages, tables, runs. Nothing heavy is imported at the top."""
