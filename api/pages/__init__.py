"""The dashboard: pages of HTML for people, rendered from the same views as the answers of the API.

A page is a function that looks things up and names a template. What changes something is no page: buttons
call the API, whose answer says what went wrong. Pages and their scripts fetch nothing from another host.
"""
