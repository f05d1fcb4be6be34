"""How good a model is: rankings over whole corpora, and the field's metrics of them."""
