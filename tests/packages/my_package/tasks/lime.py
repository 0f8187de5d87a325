# The declaration is the documents' own, letter for letter; only the two helpers that it calls are ours.
from lime_task import task


@task
def get_lime_company(app, id, props):
    company = _get_company_object(app, id)
    description = _concat_description(company, props)

    return dict(description=description)


def _get_company_object(app, id):
    return {"id": id, "name": "Acme", "city": "Lund", "application": app.identifier}


def _concat_description(company, props):
    return ", ".join(str(company[prop]) for prop in props)
