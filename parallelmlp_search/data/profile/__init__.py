"""Profile of a table: facts about each column, and findings that deserve attention before a search."""
