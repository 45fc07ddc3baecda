"""Reading of cells that are no plain numbers, dates or categories, column by column.

A reader of each module turns a column of money, percentages, durations, dates of other formats, lists, JSON
objects or texts into plain columns. ``table`` recognises the columns of a table and applies their readers.
"""
