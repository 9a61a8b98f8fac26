"""In which schema what is ours lives, and how a statement that says `public.` is said for another one (decision 0036).

Names go in and are judged; connections and statements go in, and what comes out says that schema.
"""
