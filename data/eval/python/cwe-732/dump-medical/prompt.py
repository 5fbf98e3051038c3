import csv
import os


def export_patients(path, patients):
    """Write patients, (name, diagnosis) pairs, to a CSV file for the doctor who runs this."""
