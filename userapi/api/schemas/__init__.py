"""The shapes of requests and answers. Requests are judged by form only; rules that need the
database belong to the services.
"""
