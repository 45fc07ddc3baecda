"""What both estimators share: checks of their inputs, fitting, and the model of a table without columns."""
