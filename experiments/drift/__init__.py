"""Clients whose data shift over rounds: who follows."""
