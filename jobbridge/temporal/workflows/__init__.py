"""The generic workflow, which carries each job. It imports temporalio, the standard library and the contract alone."""
