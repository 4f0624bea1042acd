"""The rows of the dashboard: three questions, and the panels that answer them."""

from deploy.observability.rows.costs import COSTS
from deploy.observability.rows.stuck import STUCK
from deploy.observability.rows.working import WORKING

ROWS = (WORKING, STUCK, COSTS)
