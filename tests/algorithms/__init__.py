"""Methods against slow references written from the papers, and against what theory says of them."""
