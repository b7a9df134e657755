"""What is relevant to a query: items that share its labels, its true neighbours, or what was judged so."""
