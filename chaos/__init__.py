"""Drills: Chaos Toolkit experiments against the embedded regions; the hypothesis is the independent judge's verdict."""
