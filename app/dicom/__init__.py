"""A folder of DICOM slices as a scan, and DICOM-SEG as a mask.

pydicom and highdicom (the extra ``dicom``) are imported when such a folder is read, never before.
"""
