"""Two versions side by side: the previous one as it was released, the present one, and a planted next one."""
