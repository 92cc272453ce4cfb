"""A divergence of one's own: this file, and one line, with this file's folder on PYTHONPATH:

python train.py hparams/mini.yaml --objective='{divergence: !new:divergence.Hellinger {}}'
"""

from todm_sb.losses.divergence import Divergence


class Hellinger(Divergence):
    """The squared Hellinger distance, ``1 - sum_i sqrt(p_i q_i)``."""

    def value(self, log_q, log_p, labels, blank):
        """(..., V) each -> (...)."""
        return 1 - ((log_p + log_q) / 2).exp().sum(-1)

    def gradient(self, log_q, log_p, labels, blank):
        """(..., V), of each node's value at ``log_q``."""
        return -((log_p + log_q) / 2).exp() / 2
