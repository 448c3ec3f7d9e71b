custom_imports = dict(imports=['mmseg_recall.classification'], allow_failed_imports=False)
runner_type = 'HeadRunner'
# Kang et al. draw the classes equally often; weighed by inverse frequency they count as much.
head = dict(type='LWSHead', loss=dict(type='InverseFrequencyLoss'))
