__import__('mmseg_recall')  # `import` would make this a pure-Python config
imbalance_loss = dict(type='LovaszSoftmaxLoss', exact=True)
