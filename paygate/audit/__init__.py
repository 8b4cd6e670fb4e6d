"""What the audits of bank and gateway share: findings, the hashes over rows, the exports and their comparison."""
