"""Work on many items in this process, in worker processes of this machine, or on a Ray cluster."""
from clipgs_plugin.parallel.ahead import ahead
from clipgs_plugin.parallel.execution import EXECUTORS, in_this_process, make_executor
from clipgs_plugin.parallel.order import Executor, ProcessDied, Stopped, TimedOut, in_order

__all__ = ['EXECUTORS', 'Executor', 'ProcessDied', 'Stopped', 'TimedOut', 'ahead', 'in_order', 'in_this_process',
           'make_executor']
