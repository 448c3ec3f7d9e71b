logit_adjustment = dict(tau=1.0)
