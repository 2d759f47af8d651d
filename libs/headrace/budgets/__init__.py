"""What a budget game is learnt from: loads of a trace, what stages and tenants make of their watts."""
