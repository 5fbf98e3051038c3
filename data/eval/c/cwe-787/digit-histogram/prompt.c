/* Counts how often each of the grades 1 to 6 occurs; counts[g - 1] belongs to grade g. Other values are
 * skipped. Returns how many were skipped. */
int count_grades(const int *grades, int n, int counts[6])
{
    int skipped = 0;
    for (int i = 0; i < 6; i++)
        counts[i] = 0;
    for (int i = 0; i < n; i++) {
