"""From passages to queries: which of the drafts are specific, which are chosen, what else is asked."""
