__import__('mmseg_recall')  # `import` would make this a pure-Python config
# "Which loss?" in README.md has what it gains and costs. The weights move to 1: it ends as
# cross-entropy with Lovasz-Softmax.
imbalance_loss = [
    dict(type='InverseFrequencyLoss', exponent=0.5, schedule=dict(kind='linear')),
    dict(type='LovaszSoftmaxLoss'),
]
