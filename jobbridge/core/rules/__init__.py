"""The rules across the fleet, as they are declared: `limits` (how many), `unique` (which are the same). No I/O."""
