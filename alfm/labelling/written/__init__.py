"""What is written for people: a batch to be labelled, in the form that their tool reads; one module per form."""
