__import__('mmseg_recall')  # `import` would make this a pure-Python config
logit_adjustment = dict(tau=1.0)
