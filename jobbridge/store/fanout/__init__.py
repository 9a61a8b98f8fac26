"""Parents and children, and the jobs of a chain: who belongs to whom, who may run next, who goes on when.

In come the ends of children, out goes which of them starts and whether the parent resumes.
"""
