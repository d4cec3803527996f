"""What recipes of figures share: contenders, claims, and the way from runs to a page.

A figure is a `Recipe` of one of the kinds here (Comparison, Tuned, Passes, Floors, Training, Feedback, LocalSteps,
Graphs, Prices) in the table FIGURES of a paper's `recipes.py`: its curves are Contenders and what the paper says of
them are Claims.
"""
