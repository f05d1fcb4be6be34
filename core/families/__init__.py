"""Model families. Each has the same four parts: model, loss, collator, evaluator."""
