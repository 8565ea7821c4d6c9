"""IMAP, from bytes to a folder that equals the server's.

wire ──► responses, parse ──► conversation ──► idling ──► session
                                                              bytes, lines, one command and its answers
watch                                                         IDLE after IDLE, renewed without a step of its task
lanes, allowance                                              who may parse when; how much a server may send
selected, fetched, news, search, uidset, uidarray             what answers mean; pure and bounded
open, authenticate, capabilities                              one deadline from the name to the login
faults                                                        the one table from a server's words to our faults
bridge                                                        IMAPClient on the same connection, for rare commands
plan ──► folder_sync ──► folder_changes ──► folder_record     what to do (pure), doing it, storing it
fetching                                                      messages and flags, in windows and chunks
flights                                                       which FETCHes are done, in our order; pure
folders, folders_store                                        LIST; the SQL of folders
"""
