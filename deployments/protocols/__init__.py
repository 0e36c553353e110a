"""The protocols of clients, one folder for each. Modules at this level are shared by several protocols.

A protocol translates its own fields, events and errors to and from the values of `speech`. No protocol imports another
one: code that two protocols need belongs here, in `http` or in `speech`.
"""
