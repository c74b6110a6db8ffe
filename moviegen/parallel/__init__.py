"""One experiment on any number of devices: layouts are applied to a model from outside; no model file knows them."""
