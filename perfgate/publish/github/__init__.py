"""GitHub: one API client, and what is said there: comment, status, checks, summary, issues, pull request.

Everything that is shown was rendered elsewhere; everything that is read is taken for hostile.
"""
