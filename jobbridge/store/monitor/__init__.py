"""What people ask of the jobs: lists, searches, health, and the log of changes that the live stream reads.

In come filters, out go pages of rows. Each question reads a bounded number of rows, however many there are.
"""
