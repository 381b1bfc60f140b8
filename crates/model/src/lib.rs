//! The nouns: inventory, findings, plans, steps, events, reports.
