"""The CRM's tasks. `limetask-worker crm` finds every module in here by itself."""
