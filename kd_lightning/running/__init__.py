"""How runs are executed: alone or in lockstep, resumed, evaluated."""
