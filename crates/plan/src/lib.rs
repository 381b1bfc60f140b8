//! Findings and a goal to a plan, and a linter for plans: pure.
