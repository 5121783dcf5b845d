"""Drills: Chaos Toolkit experiments on the embedded regions, with the independent judge's verdict as hypothesis."""
