"""The budget game: pools or tenants that share a row's watts as players, and the policy that they follow."""
