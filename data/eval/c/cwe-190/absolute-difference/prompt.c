/* Distance of two points on a line of ints; an unsigned int holds it in any case. */
unsigned distance(int a, int b)
{
